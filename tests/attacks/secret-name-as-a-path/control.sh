mkdir secrets; cat secrets/../../../../../../../..@HOST@/canary
