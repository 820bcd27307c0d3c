#ifndef WORDS_H
#define WORDS_H

#include <stddef.h>

/* How many words a text has: runs of characters that are no space. */
size_t count_words(const char *text);

#endif
