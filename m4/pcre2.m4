# SLUICE_PCRE2: libpcre2-8 is required.
AC_DEFUN([SLUICE_PCRE2], [
  PKG_CHECK_MODULES([PCRE2], [libpcre2-8], [],
    [AC_MSG_ERROR([pcre2 was not found. Install it (Debian, Ubuntu: apt install libpcre2-dev), or run ./quickstart, which does.])])
])
