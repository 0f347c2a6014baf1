# SLUICE_ZSTD: libzstd is required.
AC_DEFUN([SLUICE_ZSTD], [
  PKG_CHECK_MODULES([ZSTD], [libzstd], [],
    [AC_MSG_ERROR([libzstd was not found. Install it (Debian, Ubuntu: apt install libzstd-dev), or run ./quickstart, which does.])])
])
