/* SIGINT and SIGTERM as a flag that long jobs look at, so that they can save before they end. */
#ifndef BASE_SIGNALS_H
#define BASE_SIGNALS_H

#include <stdbool.h>

/* From here on the two signals set the flag; a second one ends the process at once. */
void signals_watch(void);
bool signals_received(void);

#endif
