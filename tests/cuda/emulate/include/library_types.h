/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
 *
 * The element types of CUDA's libraries that the emulation knows. */
#ifndef EMULATE_LIBRARY_TYPES_H
#define EMULATE_LIBRARY_TYPES_H

typedef enum cudaDataType_t { CUDA_R_32F = 0, CUDA_R_64F = 1, CUDA_R_16F = 2, CUDA_R_16BF = 14 } cudaDataType_t;
typedef cudaDataType_t cudaDataType;

#endif
