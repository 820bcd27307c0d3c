#include "words.h"

#include <ctype.h>
#include <stdbool.h>

size_t count_words(const char *text)
{
    size_t count = 0;
    bool inside = false;
    for (; *text != '\0'; text++) {
        bool space = isspace((unsigned char)*text);
        if (!space && !inside)
            count++;
        inside = !space;
    }
    return count;
}
