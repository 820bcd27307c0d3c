attack try mount
