/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * A training between two steps as a file: head, parameters, both moments, sum. Private to one machine and version: it
 * carries a run over an interruption and is removed when the training is done.
 */
#ifndef MODEL_TRAIN_STATE_H
#define MODEL_TRAIN_STATE_H

#include "model/train.h"

/* A new file, on the disk when this returns; removed again on failure. SM_IO. */
int sm_training_suspend(sm_training *training, const char *path, sm_error *error);
/* SM_FORMAT, with the training unchanged, when the file is not whole or of another training. */
int sm_training_resume(sm_training *training, const char *path, sm_error *error);

#endif
