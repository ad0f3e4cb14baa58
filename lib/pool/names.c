#include "lido/events.h"

const char *lido_event_name(int type)
{
        static const char *const name[] = {
                [LIDO_EVENT_OPENED] = "opened",
                [LIDO_EVENT_OPEN_FAILED] = "open_failed",
                [LIDO_EVENT_CLOSED] = "closed",
                [LIDO_EVENT_CHECK_FAILED] = "check_failed",
                [LIDO_EVENT_RESET_FAILED] = "reset_failed",
                [LIDO_EVENT_MISUSE] = "misuse",
                [LIDO_EVENT_LEAK] = "leak",
                [LIDO_EVENT_LEAK_ENDED] = "leak_ended",
                [LIDO_EVENT_HOLDER] = "holder",
                [LIDO_EVENT_NESTED] = "nested",
                [LIDO_EVENT_TIMED_OUT] = "timed_out",
                [LIDO_EVENT_OVERDUE] = "overdue",
                [LIDO_EVENT_DOWN] = "down",
                [LIDO_EVENT_UP] = "up",
                [LIDO_EVENT_BROKEN] = "broken",
                [LIDO_EVENT_UNRECOVERABLE] = "unrecoverable",
                [LIDO_EVENT_REVOKED] = "revoked",
                [LIDO_EVENT_DEADLOCK] = "deadlock",
                [LIDO_EVENT_SHED] = "shed",
                [LIDO_EVENT_SUSPENDED] = "suspended",
                [LIDO_EVENT_DISCARDED] = "discarded",
        };

        return type >= 0 && (size_t)type < sizeof name / sizeof name[0] ? name[type] : "?";
}

const char *lido_close_reason_name(int reason)
{
        static const char *const name[] = {
                [LIDO_CLOSE_IDLE] = "idle",           [LIDO_CLOSE_LIFETIME] = "lifetime",
                [LIDO_CLOSE_USES] = "uses",           [LIDO_CLOSE_BROKEN] = "broken",
                [LIDO_CLOSE_CHECK] = "check",         [LIDO_CLOSE_RESET] = "reset",
                [LIDO_CLOSE_DISCARDED] = "discarded", [LIDO_CLOSE_SURPLUS] = "surplus",
                [LIDO_CLOSE_SHUTDOWN] = "shutdown",   [LIDO_CLOSE_DETACHED] = "detached",
                [LIDO_CLOSE_ROTATED] = "rotated",     [LIDO_CLOSE_REVOKED] = "revoked",
                [LIDO_CLOSE_STOLEN] = "stolen",
        };

        return reason >= 0 && (size_t)reason < sizeof name / sizeof name[0] && name[reason] ? name[reason] : "?";
}
