# SLUICE_SANITIZE: --enable-sanitize=address,undefined | thread builds everything under that sanitizer.
AC_DEFUN([SLUICE_SANITIZE], [
  AC_ARG_ENABLE([sanitize], [AS_HELP_STRING([--enable-sanitize=LIST], [build with -fsanitize=LIST])], [], [enable_sanitize=no])
  SLUICE_SANITIZE_FLAGS=
  AS_IF([test "x$enable_sanitize" != xno],
        [SLUICE_SANITIZE_FLAGS="-fsanitize=$enable_sanitize -fno-sanitize-recover=all -fno-omit-frame-pointer"])
  AC_SUBST([SLUICE_SANITIZE_FLAGS])
])
