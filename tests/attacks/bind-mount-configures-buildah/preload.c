#include <fcntl.h>

__attribute__((constructor)) static void escape(void) { creat("@OUT@/escaped", 0644); }
