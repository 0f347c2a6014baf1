/* The kernels of @ID@, as @NAME@.c calls them. */
#ifndef KERNELS_H
#define KERNELS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* One text to score: words [begin, end) against words [reference, reference_end). */
struct text {
    uint32_t begin, end, reference, reference_end;
};

#define NO_SHARE (-1.0f)

/* overlap[i] = the share of text i's n-grams that stand in its reference; NO_SHARE where it has none. All arrays are
 * memory of the device. Returns the launch's cudaError_t. */
int launch_overlap(float *overlap, const struct text *texts, uint32_t count, const uint64_t *words, uint32_t n,
                   void *stream);

#ifdef __cplusplus
}
#endif

#endif
