/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
 *
 * CUDA's vectors, with its alignments, for C and C++. */
#ifndef EMULATE_VECTOR_TYPES_H
#define EMULATE_VECTOR_TYPES_H

#define EMULATE_ALIGNED(bytes) __attribute__((aligned(bytes)))

#define EMULATE_VECTORS(T, name, of2, of4)                   \
    typedef struct EMULATE_ALIGNED(of2) name##2              \
    {                                                        \
        T x, y;                                              \
    }                                                        \
    name##2;                                                 \
    typedef struct name##3                                   \
    {                                                        \
        T x, y, z;                                           \
    }                                                        \
    name##3;                                                 \
    typedef struct EMULATE_ALIGNED(of4) name##4              \
    {                                                        \
        T x, y, z, w;                                        \
    }                                                        \
    name##4;                                                 \
    static inline name##2 make_##name##2(T x, T y)           \
    {                                                        \
        name##2 v = {x, y};                                  \
        return v;                                            \
    }                                                        \
    static inline name##3 make_##name##3(T x, T y, T z)      \
    {                                                        \
        name##3 v = {x, y, z};                               \
        return v;                                            \
    }                                                        \
    static inline name##4 make_##name##4(T x, T y, T z, T w) \
    {                                                        \
        name##4 v = {x, y, z, w};                            \
        return v;                                            \
    }
EMULATE_VECTORS(signed char, char, 2, 4)
EMULATE_VECTORS(unsigned char, uchar, 2, 4)
EMULATE_VECTORS(short, short, 4, 8)
EMULATE_VECTORS(unsigned short, ushort, 4, 8)
EMULATE_VECTORS(int, int, 8, 16)
EMULATE_VECTORS(unsigned int, uint, 8, 16)
EMULATE_VECTORS(long long, longlong, 16, 16)
EMULATE_VECTORS(unsigned long long, ulonglong, 16, 16)
EMULATE_VECTORS(float, float, 8, 16)
EMULATE_VECTORS(double, double, 16, 16)

#ifdef __cplusplus
struct dim3 {
    unsigned int x, y, z;
    constexpr dim3(unsigned int x_ = 1, unsigned int y_ = 1, unsigned int z_ = 1) : x(x_), y(y_), z(z_)
    {
    }
};
#else
typedef struct dim3 {
    unsigned int x, y, z;
} dim3;
#endif

#endif
