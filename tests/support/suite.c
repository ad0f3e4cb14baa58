#include "support/suite.h"

#include <stdlib.h>

int suite_run_with(const char *name, const TTest *const *tests, SFun setup, SFun teardown)
{
        Suite *suite = suite_create(name);
        TCase *all = tcase_create(name);

        tcase_add_checked_fixture(all, setup, teardown);
        for (const TTest *const *test = tests; *test != NULL; test++)
                tcase_add_test(all, *test);
        suite_add_tcase(suite, all);

        SRunner *runner = srunner_create(suite);
        srunner_run_all(runner, CK_ENV);
        int failed = srunner_ntests_failed(runner);
        srunner_free(runner);
        return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

int suite_run(const char *name, const TTest *const *tests)
{
        return suite_run_with(name, tests, NULL, NULL);
}
