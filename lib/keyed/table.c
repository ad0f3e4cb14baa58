#include "keyed/table.h"

#include <string.h>

#include "base/assert.h"
#include "base/mem.h"
#include "lido/error.h"

#define BUCKETS_LEAST 16u

static struct list *bucket_of(const struct table *table, uint64_t hash)
{
        return &table->bucket[hash & (table->buckets - 1)];
}

/* Returns: false when there is no memory, and the table is as it was. */
static bool resize(struct table *table, uint32_t buckets)
{
        struct table old = *table;
        struct list *bucket = mem_zalloc(buckets * sizeof *bucket);

        if (!bucket)
                return false;
        for (uint32_t i = 0; i < buckets; i++)
                list_init(&bucket[i]);
        table->bucket = bucket;
        table->buckets = buckets;
        for (uint32_t i = 0; i < old.buckets; i++)
                list_for_each_safe (link, &old.bucket[i]) {
                        struct table_entry *entry = list_entry(link, struct table_entry, link);

                        list_unlink(link);
                        list_push_back(bucket_of(table, entry->hash), link);
                }
        mem_free(old.bucket);
        return true;
}

struct table_entry *table_find(const struct table *table, const struct table_entry *like)
{
        if (!table->bucket)
                return NULL;
        list_for_each (link, bucket_of(table, like->hash)) {
                struct table_entry *entry = list_entry(link, struct table_entry, link);

                if (entry->hash == like->hash && entry->key_size == like->key_size &&
                    (like->key_size == 0 || memcmp(entry->key, like->key, like->key_size) == 0))
                        return entry;
        }
        return NULL;
}

int table_add(struct table *table, struct table_entry *entry)
{
        if (!table->bucket && !resize(table, BUCKETS_LEAST))
                return LIDO_ENOMEM;
        if (table->count >= table->buckets && table->buckets < UINT32_C(1) << 30)
                resize(table, 2 * table->buckets);
        list_push_back(bucket_of(table, entry->hash), &entry->link);
        table->count++;
        return LIDO_OK;
}

void table_remove(struct table *table, struct table_entry *entry)
{
        list_unlink(&entry->link);
        table->count--;
        if (table->buckets > BUCKETS_LEAST && table->count < table->buckets / 8)
                resize(table, table->buckets / 2);
}

struct table_entry *table_any(const struct table *table)
{
        table_for_each (entry, table)
                return entry;
        return NULL;
}

void table_fini(struct table *table)
{
        lido_assert(table->count == 0);
        mem_free(table->bucket);
        memset(table, 0, sizeof *table);
}
