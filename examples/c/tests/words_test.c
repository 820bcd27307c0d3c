#include "words.h"

#include <assert.h>
#include <stdio.h>

int main(void)
{
    assert(count_words("") == 0);
    assert(count_words("  one ") == 1);
    assert(count_words("one two\tthree\n") == 3);
    puts("3 tests passed");
    return 0;
}
