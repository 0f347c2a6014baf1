# SLUICE_ONEDNN: oneDNN (2.x or 3.x) can serve the matrix products on x86-64 where a user asks for it; else our own loops do
# all of them. On aarch64 its products give a row other bits when it stands elsewhere in a batch (2.6.3 does), and that is
# what the CPU backend promises never to do.
AC_DEFUN([SLUICE_ONEDNN], [
  AC_ARG_WITH([onednn], [AS_HELP_STRING([--without-onednn], [do every matrix product with the project's own loops])], [], [with_onednn=check])
  ONEDNN_CFLAGS= ONEDNN_LIBS= sluice_matmul="own loops"
  AS_CASE([$host_cpu], [x86_64|amd64], [],
    [AS_IF([test "x$with_onednn" = xyes], [AC_MSG_ERROR([oneDNN is used on x86-64 alone: leave --with-onednn out.])])
     with_onednn=no])
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
