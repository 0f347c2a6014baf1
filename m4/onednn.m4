# SLUICE_ONEDNN: oneDNN (2.x or 3.x) serves large matrix products on the CPU; without it our own loops do all of them.
AC_DEFUN([SLUICE_ONEDNN], [
  AC_ARG_WITH([onednn], [AS_HELP_STRING([--without-onednn], [do every matrix product with the project's own loops])], [], [with_onednn=check])
  ONEDNN_CFLAGS= ONEDNN_LIBS= sluice_matmul="own loops"
  AS_IF([test "x$with_onednn" != xno], [
    AC_CHECK_HEADER([oneapi/dnnl/dnnl.h],
      [AC_CHECK_LIB([dnnl], [dnnl_engine_create],
        [ONEDNN_LIBS=-ldnnl sluice_matmul="own loops and oneDNN"
         AC_DEFINE([HAVE_ONEDNN], [1], [oneDNN is there.])])])
    AS_IF([test "x$with_onednn" = xyes && test -z "$ONEDNN_LIBS"],
      [AC_MSG_ERROR([oneDNN was asked for and not found. Install it (Debian, Ubuntu: apt install libdnnl-dev).])])
  ])
  AC_SUBST([ONEDNN_CFLAGS])
  AC_SUBST([ONEDNN_LIBS])
])
