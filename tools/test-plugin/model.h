/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0 */
/*
 * The service sluice.model/1 over a table, for plugins that ask a model: the next token depends on the one before it
 * alone, log pi(next | last) = log-softmax of a row of 258 numbers. Bytes are tokens; 256 ends an answer and 257 starts
 * a prompt. Small and exact: training is plain gradient descent, and everything is a function of its inputs alone.
 */
#ifndef TP_MODEL_H
#define TP_MODEL_H

#include <sluice/model.h>

enum { TP_VOCABULARY = 258, TP_STOP = 256, TP_START = 257, TP_CONTEXT = 4096, TP_HEADS = 2 };

/* heads: whether the models it opens are reward models. Lives as long as the program. */
const sluice_model_service *tp_model_service(bool heads);
/* Writes the folder of a version, as training would. False with errno set. */
bool tp_model_write(const char *folder, int64_t version);

#endif
