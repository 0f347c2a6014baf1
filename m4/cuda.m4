# SLUICE_CUDA: the CUDA backend is built where nvcc, the runtime and cuBLASLt are; without them everything else is.
# Sets NVCC, NVCC_FLAGS (architectures among them), CUDA_CFLAGS, CUDA_LIBS and the conditional HAVE_CUDA.
AC_DEFUN([SLUICE_CUDA], [
  AC_ARG_WITH([cuda], [AS_HELP_STRING([--with-cuda@<:@=DIR@:>@],
    [build the CUDA backend, with the toolkit in DIR (otherwise: nvcc in PATH, then /usr/local/cuda, if there is any)])],
    [], [with_cuda=check])
  AC_ARG_WITH([cuda-arch], [AS_HELP_STRING([--with-cuda-arch=LIST],
    [the compute capabilities to make code for, those that nvcc knows of "80 86 89 90 100 120" by default; PTX for later ones is made of the last])],
    [], [with_cuda_arch=])
  AC_ARG_WITH([nccl], [AS_HELP_STRING([--without-nccl],
    [train on one GPU at a time: without NCCL, whose header is otherwise used where it is])], [], [with_nccl=check])
  sluice_nccl="without NCCL"
  NVCC= NVCC_FLAGS= CUDA_CFLAGS= CUDA_LIBS= sluice_cuda=no sluice_cuda_why=
  AS_IF([test "x$with_cuda" != xno], [
    sluice_cuda_path="$PATH:/usr/local/cuda/bin"
    AS_CASE([$with_cuda], [yes|check], [], [sluice_cuda_path="$with_cuda/bin"])
    AC_PATH_PROG([NVCC], [nvcc], [], [$sluice_cuda_path])
    AS_IF([test -z "$NVCC"], [sluice_cuda_why="no nvcc in $sluice_cuda_path"], [
      # nvcc may be a link in a system folder: the toolkit is where headers and libraries are.
      sluice_cuda_home=`dirname "\`dirname "$NVCC"\`"`
      sluice_save_CPPFLAGS="$CPPFLAGS" sluice_save_LIBS="$LIBS" sluice_save_LDFLAGS="$LDFLAGS"
      AS_IF([test -f "$sluice_cuda_home/include/cuda_runtime.h" && test "$sluice_cuda_home" != /usr],
            [CUDA_CFLAGS="-isystem $sluice_cuda_home/include"])
      for dir in lib64 lib "targets/$host_cpu-linux/lib" targets/sbsa-linux/lib; do
        AS_IF([test -z "$CUDA_LIBS" && test -f "$sluice_cuda_home/$dir/libcublasLt.so" && test "$sluice_cuda_home" != /usr],
              [CUDA_LIBS="-L$sluice_cuda_home/$dir -Wl,-rpath,$sluice_cuda_home/$dir"])
      done
      CPPFLAGS="$CPPFLAGS $CUDA_CFLAGS"
      LDFLAGS="$LDFLAGS $CUDA_LIBS"
      AC_CHECK_HEADERS([cuda_runtime.h cublasLt.h cublas_v2.h], [], [sluice_cuda_why="no $ac_header"])
      AS_IF([test -z "$sluice_cuda_why"], [AC_COMPILE_IFELSE([AC_LANG_PROGRAM([[
#include <cuda_runtime_api.h>
#if CUDART_VERSION < 12000
#error cudaGraphInstantiate takes other arguments
#endif
]], [[]])], [], [sluice_cuda_why="the toolkit of $NVCC is older than CUDA 12"])])
      # For several GPUs at once; the library itself is opened when it is needed (kernels/cuda/nccl_library.c).
      AS_IF([test "x$with_nccl" != xno], [AC_CHECK_HEADER([nccl.h], [sluice_nccl="with NCCL"], [
        AS_IF([test "x$with_nccl" = xyes], [AC_MSG_ERROR([NCCL was asked for, and there is no nccl.h; install libnccl-dev.])])])])
      # The runtime within the plugin, if it may be: nothing but the driver and cuBLAS is then needed where it runs.
      sluice_cuda_runtime=
      for lib in "-lcudart_static -lrt -ldl -lpthread" -lcudart; do
        AS_IF([test -z "$sluice_cuda_runtime" && test -z "$sluice_cuda_why"], [
          AC_MSG_CHECKING([whether CUDA programs link with $lib])
          LIBS="$lib $sluice_save_LIBS"
          AC_LINK_IFELSE([AC_LANG_PROGRAM([[#include <cuda_runtime.h>]], [[int n; return cudaGetDeviceCount(&n);]])],
            [sluice_cuda_runtime="$lib"; AC_MSG_RESULT([yes])], [AC_MSG_RESULT([no])])])
      done
      AS_IF([test -z "$sluice_cuda_why" && test -z "$sluice_cuda_runtime"], [sluice_cuda_why="no CUDA runtime to link with"])
      LIBS="$sluice_save_LIBS"
      AS_IF([test -z "$sluice_cuda_why"],
        [AC_CHECK_LIB([cublasLt], [cublasLtMatmul], [], [sluice_cuda_why="no libcublasLt"])
         AC_CHECK_LIB([cublas], [cublasCreate_v2], [], [sluice_cuda_why="no libcublas"])])
      CPPFLAGS="$sluice_save_CPPFLAGS" LIBS="$sluice_save_LIBS" LDFLAGS="$sluice_save_LDFLAGS"
      # cuBLAS is opened when it is needed (kernels/cuda/cublas.c).
      CUDA_LIBS="$CUDA_LIBS $sluice_cuda_runtime -ldl"
      AS_IF([test "$sluice_nccl" = "with NCCL"], [CUDA_CFLAGS="$CUDA_CFLAGS -DKN_NCCL"])
      AS_IF([test -z "$sluice_cuda_why"], [SLUICE_CUDA_ARCHITECTURES])
    ])
    AS_IF([test -z "$sluice_cuda_why"], [sluice_cuda="for $sluice_cuda_list, by $NVCC, $sluice_nccl"], [
      AS_IF([test "x$with_cuda" != xcheck],
        [AC_MSG_ERROR([The CUDA backend was asked for and cannot be built: $sluice_cuda_why. Install the CUDA toolkit (nvcc, cudart, cuBLAS), or say where it is: --with-cuda=DIR.])])
      NVCC= CUDA_CFLAGS= CUDA_LIBS= sluice_cuda="no ($sluice_cuda_why)"])
  ])
  AC_SUBST([NVCC])
  AC_SUBST([NVCC_FLAGS])
  AC_SUBST([CUDA_CFLAGS])
  AC_SUBST([CUDA_LIBS])
  AM_CONDITIONAL([HAVE_CUDA], [test -n "$NVCC"])
])

# Which architectures, and whether nvcc gets along with the compiler that it uses for the host.
AC_DEFUN([SLUICE_CUDA_ARCHITECTURES], [
  AC_MSG_CHECKING([what $NVCC makes code for])
  sluice_cuda_known=`"$NVCC" --list-gpu-arch 2>/dev/null | tr '\n' ' '`
  sluice_cuda_list= sluice_cuda_last=
  for arch in `echo "${with_cuda_arch:-80 86 89 90 100 120}" | sed 's/sm_//g; s/,/ /g'`; do
    AS_CASE([" $sluice_cuda_known "],
      [*" compute_$arch "*], [
        sluice_cuda_list="$sluice_cuda_list sm_$arch" sluice_cuda_last=$arch
        NVCC_FLAGS="$NVCC_FLAGS -gencode arch=compute_$arch,code=sm_$arch"],
      [AS_IF([test -n "$with_cuda_arch"], [AC_MSG_ERROR([$NVCC knows no compute_$arch, but $sluice_cuda_known.])])])
  done
  sluice_cuda_list=`echo $sluice_cuda_list`
  AC_MSG_RESULT([$sluice_cuda_list])
  AS_IF([test -z "$sluice_cuda_list"], [sluice_cuda_why="$NVCC knows no compute capability of 8.0 or later"], [
    NVCC_FLAGS="-std=c++17 -O3$NVCC_FLAGS -gencode arch=compute_$sluice_cuda_last,code=compute_$sluice_cuda_last -Xcompiler -fPIC,-fvisibility=hidden,-Wall,-Wno-unknown-pragmas"
    AS_IF([test "x$enable_werror" = xyes], [NVCC_FLAGS="$NVCC_FLAGS -Werror all-warnings -Xcompiler -Werror"])
    cat >conftest.cu <<_ACEOF
#include <cuda_runtime.h>
__global__ void nothing() {}
_ACEOF
    AC_MSG_CHECKING([whether $NVCC compiles])
    AS_IF(["$NVCC" -std=c++17 -arch=sm_$sluice_cuda_last -c conftest.cu -o conftest.o >&AS_MESSAGE_LOG_FD 2>&1], [AC_MSG_RESULT([yes])], [
      AC_MSG_RESULT([no])
      sluice_cuda_why="$NVCC does not compile with this compiler; config.log says why"])
    rm -f conftest.cu conftest.o
  ])
])
