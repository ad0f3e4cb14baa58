/* suite.h - the main() of a test program in one line.
 *
 *      int main(void)
 *      {
 *              return suite_run("pool/slots", (const TTest *[]){a_stale_lease_is_refused, NULL});
 *      }
 */
#ifndef LIDO_TESTS_SUITE_H
#define LIDO_TESTS_SUITE_H

#include <check.h>

/* Run the tests, each in a process of its own unless CK_FORK=no. Returns what main returns: 0 when all passed.
 * Check's variables are obeyed: CK_RUN_CASE, CK_VERBOSITY, CK_DEFAULT_TIMEOUT. */
int suite_run(const char *name, const TTest *const *tests);

/* The same, with a fixture that is set up and torn down around each test; either may be NULL. */
int suite_run_with(const char *name, const TTest *const *tests, SFun setup, SFun teardown);

#endif
