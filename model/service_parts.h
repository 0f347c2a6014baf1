/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/* What the files of the plugin "model" share. Functions return a sluice_result, reported already. */
#ifndef MODEL_SERVICE_PARTS_H
#define MODEL_SERVICE_PARTS_H

#include <sluice/sluice.h>
#include <sluice/model.h>
#include <sluice/service.h>

#include "kernels/backend.h"
#include "model/replicas.h"
#include "model/version.h"

struct sluice_model {
    const sluice_host *host;
    const sluice_model_service *service; /* that opened it */
    sm_version *version;
    bool told_narrow; /* the log says that memory was short for sampling */
};

/* Passes the library's line on; `callers` is what a function of the caller returned, if that is what ended the work. */
int service_report(const sluice_host *host, int status, const sm_error *error, int callers);

/* Outputs of a reward model's head, 0 for a language model; and whether it is the one kind or the other. */
uint32_t service_outputs(const sluice_model *model);
int service_need_language_head(const sluice_model *model);
int service_need_reward_head(const sluice_model *model);

/* Sets the functions train_…. */
void service_add_training(sluice_model_service *service);

/* The device that all models of a run share, and those that train with it. */
enum { SERVICE_AUTO = 0, SERVICE_CPU = 1, SERVICE_CUDA = 2 };
typedef struct service_device {
    kn_device *kn;
    kn_device *all[SM_MOST_DEVICES]; /* kn first */
    size_t count;
    kn_collective *together;    /* NULL for one */
    const kn_backend *backend;  /* whose they are; NULL = the processor's */
    char reason[512];           /* why it is no GPU; "" where none was looked for or one was found */
    _Atomic(const char *) told; /* the backend's last note that the log has */
} service_device;
/* devices: how many; 0 = all there are. */
int service_device_open(service_device *, const sluice_host *, int wanted, int devices, int threads);
sm_devices service_devices(const sluice_model_service *);
void service_device_close(service_device *);
/* Logs what the backend has to say of the device, unless it was said. Any thread. */
void service_device_tell(service_device *, const sluice_host *);
const service_device *service_device_of(const sluice_model_service *);

extern const sluice_service_class service_device_class; /* "sluice.device/1" */

#endif
