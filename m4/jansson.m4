# SLUICE_JANSSON: jansson is required.
AC_DEFUN([SLUICE_JANSSON], [
  PKG_CHECK_MODULES([JANSSON], [jansson], [],
    [AC_MSG_ERROR([jansson was not found. Install it (Debian, Ubuntu: apt install libjansson-dev), or run ./quickstart, which does.])])
])
