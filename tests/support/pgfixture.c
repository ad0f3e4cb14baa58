#include "support/pgfixture.h"

#include <check.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *from_environment(const char *name)
{
        const char *value = getenv(name);

        ck_assert_msg(value != NULL, "%s is not set: run the test by tests/support/pgserver.sh run -- TEST", name);
        return value;
}

const char *server_conninfo(void)
{
        return from_environment("LIDO_PG_CONNINFO");
}

const char *server_tcp_conninfo(void)
{
        return from_environment("LIDO_PG_TCP_CONNINFO");
}

PGconn *admin_connect(const char *conninfo)
{
        PGconn *admin = PQconnectdb(conninfo);

        ck_assert_msg(PQstatus(admin) == CONNECTION_OK, "%s", PQerrorMessage(admin));
        return admin;
}

static PGresult *run(PGconn *admin, const char *format, va_list arguments)
{
        char sql[2048];
        PGresult *result;

        vsnprintf(sql, sizeof sql, format, arguments);
        result = PQexec(admin, sql);
        ck_assert_msg(PQresultStatus(result) == PGRES_COMMAND_OK || PQresultStatus(result) == PGRES_TUPLES_OK, "%s: %s", sql,
                      PQerrorMessage(admin));
        return result;
}

void admin_run(PGconn *admin, const char *format, ...)
{
        va_list arguments;

        va_start(arguments, format);
        PQclear(run(admin, format, arguments));
        va_end(arguments);
}

static long number(PGconn *admin, const char *format, va_list arguments)
{
        PGresult *result = run(admin, format, arguments);

        ck_assert_int_ge(PQntuples(result), 1);
        long found = strtol(PQgetvalue(result, 0, 0), NULL, 10);
        PQclear(result);
        return found;
}

long admin_number(PGconn *admin, const char *format, ...)
{
        va_list arguments;

        va_start(arguments, format);
        long found = number(admin, format, arguments);
        va_end(arguments);
        return found;
}

void admin_wait_for(PGconn *admin, long wanted, const char *format, ...)
{
        const struct timespec pause = {.tv_nsec = 2000000};
        long found = -1;

        for (int turn = 0; turn < 10000; turn++) {
                va_list arguments;

                va_start(arguments, format);
                found = number(admin, format, arguments);
                va_end(arguments);
                if (found == wanted)
                        return;
                nanosleep(&pause, NULL);
        }
        ck_abort_msg("%s stays %ld, wanted %ld", format, found, wanted);
}

/* ---- a server of one's own ------------------------------------------------------------------------------- */

static void read_file(const struct own_server *server, const char *name, char *text, size_t size)
{
        char path[128];

        snprintf(path, sizeof path, "%s/%s", server->dir, name);
        FILE *file = fopen(path, "r");
        ck_assert_msg(file != NULL, "%s cannot be read", path);
        ck_assert_ptr_nonnull(fgets(text, (int)size, file));
        text[strcspn(text, "\n")] = '\0';
        fclose(file);
}

/* In a session of its own, because a test that takes too long is killed with its whole process group. */
static void guard(struct own_server *server)
{
        int ends[2];
        char byte;

        ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
        server->guard_fd = ends[1];
        server->guard = fork();
        ck_assert_int_ge(server->guard, 0);
        if (server->guard > 0) {
                close(ends[0]);
                return;
        }
        setsid();
        dup2(ends[0], 0);
        for (int fd = 1; fd < 1024; fd++) /* nothing of the test's is to stay open, the writing end above all */
                close(fd);
        if (open("/dev/null", O_RDWR) == 1 && dup(1) == 2 && read(0, &byte, 1) == 0)
                execl(getenv("LIDO_PGSERVER"), "pgserver.sh", "remove", server->dir, (char *)NULL);
        _exit(0);
}

static void start(struct own_server *server, const char *what, const char *options)
{
        char command[512];

        strcpy(server->dir, "/tmp/lido-test.XXXXXX");
        ck_assert_ptr_nonnull(mkdtemp(server->dir));
        guard(server);
        snprintf(command, sizeof command, "%s %s %s %s >/dev/null 2>&1", from_environment("LIDO_PGSERVER"), what, server->dir,
                 options);
        ck_assert_msg(system(command) == 0, "%s", command);
        read_file(server, "conninfo", server->conninfo, sizeof server->conninfo);
        read_file(server, "conninfo.tcp", server->tcp_conninfo, sizeof server->tcp_conninfo);
}

void own_server_start(struct own_server *server, const char *options)
{
        start(server, "start", options);
}

void own_server_standby(struct own_server *server, const struct own_server *primary)
{
        start(server, "standby", primary->dir);
}

void own_server_command(const struct own_server *server, const char *command, const char *mode)
{
        char line[512];

        snprintf(line, sizeof line, "%s %s %s %s >/dev/null 2>&1", from_environment("LIDO_PGSERVER"), command, server->dir,
                 mode);
        ck_assert_msg(system(line) == 0, "%s", line);
}

void own_server_remove(struct own_server *server)
{
        own_server_command(server, "remove", "");
        ck_assert_int_eq(write(server->guard_fd, "", 1), 1);
        close(server->guard_fd);
        ck_assert_int_eq(waitpid(server->guard, NULL, 0), server->guard);
}

unsigned own_server_log_count(const struct own_server *server, const char *text)
{
        char path[128], line[1024];
        unsigned count = 0;

        snprintf(path, sizeof path, "%s/log", server->dir);
        FILE *file = fopen(path, "r");
        ck_assert_msg(file != NULL, "%s cannot be read", path);
        while (fgets(line, sizeof line, file))
                count += strstr(line, text) != NULL;
        fclose(file);
        return count;
}

unsigned open_descriptors(void)
{
        DIR *dir = opendir("/proc/self/fd");
        unsigned count = 0;

        ck_assert_ptr_nonnull(dir);
        while (readdir(dir))
                count++;
        closedir(dir);
        return count - 3; /* ".", ".." and the folder itself */
}
