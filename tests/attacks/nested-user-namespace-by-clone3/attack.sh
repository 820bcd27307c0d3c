attack try clone3
