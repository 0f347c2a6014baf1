# SLUICE_WARNINGS: the warnings every file of the project compiles without; --enable-werror makes them errors.
AC_DEFUN([SLUICE_WARNINGS], [
  AC_ARG_ENABLE([werror], [AS_HELP_STRING([--enable-werror], [treat compiler warnings as errors])], [], [enable_werror=no])
  SLUICE_CFLAGS="-std=gnu11 -fPIC -fvisibility=hidden -pthread"
  for flag in -Wall -Wextra -Wshadow -Wpointer-arith -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wno-unused-parameter -Wno-missing-field-initializers -Wno-override-init -Wno-initializer-overrides -ffp-contract=off; do
    AC_MSG_CHECKING([whether $CC accepts $flag])
    sluice_save_CFLAGS="$CFLAGS"
    # A compiler takes any -Wno- in silence; what it knows shows in the positive form.
    CFLAGS="$CFLAGS -Werror `echo $flag | sed s/^-Wno-/-W/`"
    AC_COMPILE_IFELSE([AC_LANG_PROGRAM()], [AC_MSG_RESULT([yes]); SLUICE_CFLAGS="$SLUICE_CFLAGS $flag"], [AC_MSG_RESULT([no])])
    CFLAGS="$sluice_save_CFLAGS"
  done
  AS_IF([test "x$enable_werror" = xyes], [SLUICE_CFLAGS="$SLUICE_CFLAGS -Werror"])
  AC_SUBST([SLUICE_CFLAGS])
])
