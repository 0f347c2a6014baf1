/* Copyright (c) the sluice authors. SPDX-License-Identifier: Apache-2.0
 *
 * What the sanitizers must know of fibers. QUIET: the emulator's own accesses, hidden from TSan; VISIBLE: accesses made
 * on behalf of a kernel, which it must see. */
#ifndef EMULATE_SANITIZER_H
#define EMULATE_SANITIZER_H

#ifndef __has_feature
#define __has_feature(x) 0
#endif
#ifndef __has_include
#define __has_include(x) 0
#endif

#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define EMULATE_ASAN 1
#else
#define ASAN_POISON_MEMORY_REGION(p, size)   ((void)(p), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(p, size) ((void)(p), (void)(size))
#endif

#if defined(__SANITIZE_THREAD__) || __has_feature(thread_sanitizer)
#include <sanitizer/tsan_interface.h>
#define EMULATE_TSAN    1
#define QUIET           __attribute__((no_sanitize("thread"), noinline))
#define VISIBLE         __attribute__((noinline))
#define TSAN_RELEASE(p) __tsan_release(p)
#define TSAN_ACQUIRE(p) __tsan_acquire(p)
#else
#define QUIET
#define VISIBLE
#define TSAN_RELEASE(p) (void)(p)
#define TSAN_ACQUIRE(p) (void)(p)
#endif

#endif
