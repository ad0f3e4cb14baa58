/* Words for people: the blame report as a paragraph, and the dump of a pool, which is written without memory or locks so
 * that it works in a signal handler. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/stack.h"
#include "lido/stats.h"
#include "pool/blame.h"
#include "watch/states.h"
#include "watch/text.h"

static const char *const cause_text[] = {
        [LIDO_CAUSE_NONE] = "nothing stands in the way",
        [LIDO_CAUSE_EXHAUSTED] = "every object is lent",
        [LIDO_CAUSE_DOWN] = "server down",
        [LIDO_CAUSE_OPENING] = "objects are still being opened",
        [LIDO_CAUSE_PAUSED] = "the pool is paused",
        [LIDO_CAUSE_QUEUE_FULL] = "the queue is full",
        [LIDO_CAUSE_CLOSED] = "the pool is closed",
        [LIDO_CAUSE_SHED] = "the request was shed",
        [LIDO_CAUSE_DEADLOCK] = "every holder waits for another",
        [LIDO_CAUSE_BREAKER] = "opening is given up for a while",
        [LIDO_CAUSE_QUOTA] = "the tag's quota is used up",
        [LIDO_CAUSE_UPKEEP] = "objects are being checked, reset or closed",
};

/* The first frames are in lido itself, unless it is a part of the program and so are all. */
static uint32_t first_of_borrower(void *const *frames, uint32_t count)
{
        const void *own = stack_object((const void *)(uintptr_t)first_of_borrower);
        uint32_t first = 0;

        while (own && first < count && stack_object(frames[first]) == own)
                first++;
        return first < count ? first : 0;
}

static void add_frames(struct text *text, void *const *frames, uint32_t count)
{
        char name[256];

        for (uint32_t first = first_of_borrower(frames, count), i = first; i < count; i++) {
                stack_name(frames[i], name, sizeof name);
                text_add(text, "%s%s", i == first ? "" : " < ", name);
        }
}

size_t lido_frames_text(void *const *frames, uint32_t count, char *text, size_t size)
{
        struct text t;

        text_init(&t, text, size);
        add_frames(&t, frames, count);
        return t.length;
}

size_t lido_blame_text(const struct lido_blame *blame, char *text, size_t size)
{
        bool is_known = blame->cause >= 0 && (size_t)blame->cause < sizeof cause_text / sizeof cause_text[0];
        struct text t;

        text_init(&t, text, size);
        text_add(&t, "%s: max %u, live %u, idle %u, leased %u, opening %u, waiting %u", is_known ? cause_text[blame->cause] : "?",
            blame->max, blame->live, blame->idle, blame->leased, blame->opening, blame->waiting);
        if (blame->last_error_is_set)
                text_add(&t, "; last open error %.1f s ago: %s%s%s", (double)blame->last_error_age_ns / 1e9,
                    blame->last_error.sqlstate, blame->last_error.sqlstate[0] ? " " : "", blame->last_error.text);
        if (blame->size >= sizeof *blame && blame->discard_reason[0])
                text_add(&t, "; last discarded %.1f s ago at %s: %s", (double)blame->discard_age_ns / 1e9,
                    blame->discard_site ? blame->discard_site : "?", blame->discard_reason);
        for (uint32_t i = 0; i < blame->holders && i < LIDO_BLAME_HOLDERS; i++) {
                const struct lido_holder *holder = &blame->holder[i];

                text_add(&t, "%s%s by thread %u%s%s for %.3f s", i == 0 ? "; held at " : ", ",
                    holder->site ? holder->site : "?", holder->thread, holder->tag ? " for " : "",
                    holder->tag ? holder->tag : "", (double)holder->held_ns / 1e9);
                if (holder->frame_count > 0 && holder->frame_count <= LIDO_HOLDER_FRAMES) {
                        text_add(&t, " [");
                        add_frames(&t, holder->frame, holder->frame_count);
                        text_add(&t, "]");
                }
        }
        return t.length;
}

/* ---- the dump: write(2) and nothing else ----------------------------------------------------------------- */

struct line {
        char text[512];
        size_t length;
};

static void put(struct line *line, const char *string)
{
        while (*string && line->length + 1 < sizeof line->text)
                line->text[line->length++] = *string++;
}

static void put_number(struct line *line, uint64_t number)
{
        char digits[21];
        size_t i = sizeof digits - 1;

        digits[i] = '\0';
        do {
                digits[--i] = (char)('0' + number % 10);
                number /= 10;
        } while (number > 0);
        put(line, digits + i);
}

static bool flush(struct line *line, int fd)
{
        size_t done = 0;

        line->text[line->length++] = '\n';
        while (done < line->length) {
                ssize_t n = write(fd, line->text + done, line->length - done);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0)
                        return false;
                done += (size_t)n;
        }
        line->length = 0;
        return true;
}

static void put_slot(struct line *line, struct lido_pool *pool, struct lido_slot *slot, uint64_t now)
{
        uint64_t word = load_acquire(&slot->word);
        const char *site = load_relaxed(&slot->site), *tag = load_relaxed(&slot->tag);

        put(line, "  slot ");
        put_number(line, load_relaxed(&slot->index));
        put(line, " ");
        put(line, state_names[word_state(word)]);
        put(line, " leases ");
        put_number(line, load_relaxed(&slot->leases));
        if (word_state(word) != SLOT_LEASED)
                return;
        put(line, " by thread ");
        put_number(line, slot_holder(slot, word));
        put(line, " at ");
        put(line, site ? site : "?");
        if (tag) {
                put(line, " for ");
                put(line, tag);
        }
        put(line, " held_ms ");
        put_number(line, blame_held_ns(pool, slot, word, now) / NS_PER_MS);
}

int lido_pool_dump(struct lido_pool *pool, int fd)
{
        struct line line = { .length = 0 };
        uint64_t now = clock_now_ns();

        if (!pool || fd < 0)
                return LIDO_EINVAL;
        put(&line, "pool ");
        put(&line, pool->name);
        put(&line, " max ");
        put_number(&line, load_relaxed(&pool->max));
        put(&line, " live ");
        put_number(&line, load_relaxed(&pool->live));
        put(&line, " waiting ");
        put_number(&line, load_relaxed(&pool->gate) & GATE_COUNT);
        if (!flush(&line, fd))
                return LIDO_EINVAL;
        slots_for_each (slot, &pool->slots) {
                put_slot(&line, pool, slot, now);
                if (!flush(&line, fd))
                        return LIDO_EINVAL;
        }
        return LIDO_OK;
}
