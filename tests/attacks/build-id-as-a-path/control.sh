cat @STORE@/../../../../../../..@HOST@/canary
