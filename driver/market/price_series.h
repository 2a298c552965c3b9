/* Growing rows of the tickers of one price file, and the check of their order. */
#ifndef MARKET_PRICE_SERIES_H
#define MARKET_PRICE_SERIES_H

#include "market/price_file.h"

typedef struct price_row {
    int32_t date, line;
    double adj_close, volume;
} price_row;

bool price_series_append(price_series *series, const price_row *row); /* false: no memory */
/* Turns the rows around when most days are followed by an earlier one: newest first. True then. */
bool price_series_orient(price_series *series);
/* Row `to` becomes what row `from` is. */
void price_series_move(price_series *series, int32_t to, int32_t from);
void price_series_free(price_series *series);

/* Finds or adds a ticker of a long file: rows of one ticker usually follow each other, so the last
 * one found is looked at first and a hash table (open addressing) second. */
typedef struct series_index {
    int32_t *slots; /* [capacity], a power of 2; index + 1, 0 is free; owned */
    int32_t capacity, last;
} series_index;

/* -1: no memory. */
int32_t series_index_find(series_index *index, price_file *file, const char *name, int32_t length);
/* The new series' index, or -1. */
int32_t price_file_add(price_file *file, const char *name, int32_t length);

#endif
