/* The kernels of @ID@, as @NAME@.c calls them. */
#ifndef KERNELS_H
#define KERNELS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Σ x and Σ x² of x[n] into sums[2]. `parts` has room for 2 · PARTS numbers. All arrays are memory of the device. The
 * order of the sums is fixed, so that they are the same in every run. Returns the launches' cudaError_t. */
enum { PARTS = 256 };
int launch_sums(double *sums, double *parts, const float *x, size_t n, void *stream);
/* weight[i] = 1 / (1 + exp(-(x[i] - mean) / deviation)), with mean and deviation from `sums`; 1/2 where all x are
 * equal.
 */
int launch_weights(float *weight, const float *x, const double *sums, size_t n, void *stream);

#ifdef __cplusplus
}
#endif

#endif
