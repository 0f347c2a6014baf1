# SLUICE_LIBCONFIG: libconfig is required.
AC_DEFUN([SLUICE_LIBCONFIG], [
  PKG_CHECK_MODULES([LIBCONFIG], [libconfig], [],
    [AC_MSG_ERROR([libconfig was not found. Install it (Debian, Ubuntu: apt install libconfig-dev), or run ./quickstart, which does.])])
])
