/* The table of keys. */
#include "support/suite.h"

#include <stdlib.h>

#include "base/mem.h"
#include "keyed/table.h"
#include "lido/error.h"

static struct table_entry *entry_of(uint32_t *key, uint64_t hash)
{
        struct table_entry *entry = calloc(1, sizeof *entry);

        list_init(&entry->link);
        entry->hash = hash;
        entry->key = key;
        entry->key_size = sizeof *key;
        return entry;
}

#define MANY 5000
static uint32_t keys[MANY];
static struct table_entry *entries[MANY];

static void fill(struct table *table, uint64_t mask)
{
        for (uint32_t i = 0; i < MANY; i++) {
                keys[i] = i;
                entries[i] = entry_of(&keys[i], i * UINT64_C(0x9e3779b97f4a7c15) & mask);
                ck_assert_int_eq(table_add(table, entries[i]), LIDO_OK);
        }
}

static struct table_entry *find(const struct table *table, uint32_t key, uint64_t mask)
{
        struct table_entry like = { .hash = key * UINT64_C(0x9e3779b97f4a7c15) & mask, .key = &key, .key_size = sizeof key };

        return table_find(table, &like);
}

START_TEST(what_is_in_is_found_and_what_is_not_is_not)
{
        struct table table = { .count = 0 };

        ck_assert_ptr_null(find(&table, 1, UINT64_MAX));
        fill(&table, UINT64_MAX);
        for (uint32_t i = 0; i < MANY; i++)
                ck_assert_ptr_eq(find(&table, i, UINT64_MAX), entries[i]);
        ck_assert_ptr_null(find(&table, MANY, UINT64_MAX));
}
END_TEST

START_TEST(keys_with_the_same_hash_are_kept_apart)
{
        struct table table = { .count = 0 };

        fill(&table, 3);
        for (uint32_t i = 0; i < MANY; i += 97)
                ck_assert_ptr_eq(find(&table, i, 3), entries[i]);
        table_remove(&table, entries[97]);
        ck_assert_ptr_null(find(&table, 97, 3));
        ck_assert_ptr_eq(find(&table, 101, 3), entries[101]);
}
END_TEST

START_TEST(it_grows_with_its_entries_and_shrinks_with_them)
{
        struct table table = { .count = 0 };
        uint32_t most, seen = 0;

        fill(&table, UINT64_MAX);
        most = table.buckets;
        ck_assert_uint_ge(most, MANY);
        for (uint32_t i = 0; i < MANY - 10; i++)
                table_remove(&table, entries[i]);
        ck_assert_uint_le(table.buckets, 128);
        table_for_each (entry, &table)
                seen += entry != NULL;
        ck_assert_uint_eq(seen, 10);
        for (struct table_entry *entry; (entry = table_any(&table)) != NULL;)
                table_remove(&table, entry);
        ck_assert_uint_eq(table.count, 0);
        table_fini(&table);
        ck_assert_ptr_null(table.bucket);
}
END_TEST

int main(void)
{
        return suite_run("keyed/table", (const TTest *[]){
                                                what_is_in_is_found_and_what_is_not_is_not,
                                                keys_with_the_same_hash_are_kept_apart,
                                                it_grows_with_its_entries_and_shrinks_with_them,
                                                NULL,
                                        });
}
