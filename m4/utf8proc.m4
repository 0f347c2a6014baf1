# SLUICE_UTF8PROC: libutf8proc is required.
AC_DEFUN([SLUICE_UTF8PROC], [
  PKG_CHECK_MODULES([UTF8PROC], [libutf8proc], [],
    [AC_MSG_ERROR([utf8proc was not found. Install it (Debian, Ubuntu: apt install libutf8proc-dev), or run ./quickstart, which does.])])
])
