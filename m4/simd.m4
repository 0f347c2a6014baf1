# SLUICE_SIMD: the instruction sets that the CPU backend is compiled for; which one runs is decided on the machine.
AC_DEFUN([SLUICE_SIMD], [
  sluice_x86=no sluice_neon=no sluice_avx512bf16=no sluice_amx=no
  AS_CASE([$host_cpu],
    [x86_64|amd64], [
      AC_MSG_CHECKING([whether $CC compiles AVX2 and AVX-512])
      sluice_save_CFLAGS="$CFLAGS"
      CFLAGS="$CFLAGS -mavx2 -mfma -mavx512f -mavx512bw -mavx512dq -mavx512vl"
      AC_COMPILE_IFELSE([AC_LANG_PROGRAM([[#include <immintrin.h>]], [[__m512 a = _mm512_setzero_ps(); (void)a;]])],
        [sluice_x86=yes])
      CFLAGS="$sluice_save_CFLAGS"
      AC_MSG_RESULT([$sluice_x86])
      AC_MSG_CHECKING([whether $CC compiles AVX512-BF16])
      CFLAGS="$CFLAGS -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512bf16"
      AS_IF([test $sluice_x86 = yes],
        [AC_COMPILE_IFELSE([AC_LANG_PROGRAM([[#include <immintrin.h>]],
          [[__m512 a = _mm512_setzero_ps(); __m512bh b = _mm512_cvtne2ps_pbh(a, a);
            a = _mm512_dpbf16_ps(a, b, b); __builtin_cpu_init();
            (void)a; return __builtin_cpu_supports("avx512bf16");]])],
          [sluice_avx512bf16=yes])])
      CFLAGS="$sluice_save_CFLAGS"
      AC_MSG_RESULT([$sluice_avx512bf16])
      AC_MSG_CHECKING([whether $CC compiles AMX for bfloat16])
      CFLAGS="$CFLAGS -mavx512f -mamx-tile -mamx-bf16"
      AS_IF([test $sluice_x86 = yes],
        [AC_COMPILE_IFELSE([AC_LANG_PROGRAM([[#include <immintrin.h>
          #include <cpuid.h>
          #include <sys/syscall.h>
          long number = SYS_arch_prctl;]],
          [[char m[1024]; _tile_loadconfig(m); _tile_zero(0); _tile_loadd(1, m, 64); _tile_dpbf16ps(0, 1, 2);
            _tile_stored(0, m, 64); _tile_release();]])],
          [sluice_amx=yes])])
      CFLAGS="$sluice_save_CFLAGS"
      AC_MSG_RESULT([$sluice_amx])
      AS_IF([test $sluice_x86 = yes], [AC_DEFINE([KN_HAVE_X86], [1], [The CPU backend has AVX2 and AVX-512 code.])])
      AS_IF([test $sluice_avx512bf16 = yes],
        [AC_DEFINE([KN_HAVE_AVX512BF16], [1], [The CPU backend has AVX512-BF16 code.])])
      AS_IF([test $sluice_amx = yes], [AC_DEFINE([KN_HAVE_AMX], [1], [The CPU backend has AMX code.])])],
    [aarch64|arm64], [
      sluice_neon=yes
      AC_DEFINE([KN_HAVE_NEON], [1], [The CPU backend has NEON code.])])
  AM_CONDITIONAL([KN_X86], [test $sluice_x86 = yes])
  AM_CONDITIONAL([KN_AVX512BF16], [test $sluice_avx512bf16 = yes])
  AM_CONDITIONAL([KN_AMX], [test $sluice_amx = yes])
  AM_CONDITIONAL([KN_NEON], [test $sluice_neon = yes])
])
