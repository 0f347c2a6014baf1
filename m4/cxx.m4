# SLUICE_CXX: a C++17 compiler, wanted by the tests alone, which execute the CUDA backend on the processor.
AC_DEFUN([SLUICE_CXX], [
  AC_REQUIRE([AC_PROG_CXX])
  AC_LANG_PUSH([C++])
  AC_MSG_CHECKING([whether $CXX compiles C++17])
  sluice_save_CXXFLAGS="$CXXFLAGS"
  CXXFLAGS="$CXXFLAGS -std=c++17"
  AC_COMPILE_IFELSE([AC_LANG_PROGRAM([[#include <functional>
    #include <tuple>
    template <class... A> int count(A...) { if constexpr (sizeof...(A) > 1) { return 2; } return 1; }]], [[return count(1);]])],
    [sluice_cxx=yes], [sluice_cxx=no])
  CXXFLAGS="$sluice_save_CXXFLAGS"
  AC_MSG_RESULT([$sluice_cxx])
  SLUICE_CXXFLAGS="-std=c++17 -fPIC -fvisibility=hidden -pthread"
  AS_IF([test $sluice_cxx = yes], [
    for flag in -Wall -Wextra -Wno-unknown-pragmas -Wno-unused-parameter -Wno-pass-failed -ffp-contract=off; do
      AC_MSG_CHECKING([whether $CXX accepts $flag])
      CXXFLAGS="$sluice_save_CXXFLAGS -Werror `echo $flag | sed s/^-Wno-/-W/`"
      AC_COMPILE_IFELSE([AC_LANG_PROGRAM()], [AC_MSG_RESULT([yes]); SLUICE_CXXFLAGS="$SLUICE_CXXFLAGS $flag"], [AC_MSG_RESULT([no])])
      CXXFLAGS="$sluice_save_CXXFLAGS"
    done
    AS_IF([test "x$enable_werror" = xyes], [SLUICE_CXXFLAGS="$SLUICE_CXXFLAGS -Werror"])
  ])
  AC_LANG_POP([C++])
  AC_SUBST([SLUICE_CXXFLAGS])
  AM_CONDITIONAL([HAVE_CXX], [test $sluice_cxx = yes])
])
