# SLUICE_CMOCKA: the unit tests need cmocka; without it everything builds and `make check` says what is missing.
AC_DEFUN([SLUICE_CMOCKA], [
  PKG_CHECK_MODULES([CMOCKA], [cmocka], [sluice_tests="cmocka"], [sluice_tests="none: cmocka was not found (apt install libcmocka-dev)"])
  AM_CONDITIONAL([HAVE_CMOCKA], [test "x$sluice_tests" = xcmocka])
])
