# SLUICE_XXHASH: libxxhash is required.
AC_DEFUN([SLUICE_XXHASH], [
  PKG_CHECK_MODULES([XXHASH], [libxxhash], [],
    [AC_MSG_ERROR([libxxhash was not found. Install it (Debian, Ubuntu: apt install libxxhash-dev), or run ./quickstart, which does.])])
])
