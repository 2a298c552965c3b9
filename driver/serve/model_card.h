/* What is known of the model that answers: a list of facts, once as JSON and once as HTML. */
#ifndef SERVE_MODEL_CARD_H
#define SERVE_MODEL_CARD_H

#include "serve/snapshot.h"

/* `key` for programs, `label` for people; the value as text. */
typedef void (*model_card_fact)(void *context, const char *key, const char *label,
                                const char *value);

void model_card_list(const snapshot *snapshot, model_card_fact fact, void *context);

#endif
