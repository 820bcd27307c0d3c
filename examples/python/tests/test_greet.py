"""python3 -m unittest"""

import unittest

from greet import greeting


class Greeting(unittest.TestCase):
    def test_nobody(self) -> None:
        self.assertEqual(greeting([]), "Hello, whoever you are!")

    def test_one(self) -> None:
        self.assertEqual(greeting(["Ann"]), "Hello, Ann!")

    def test_many(self) -> None:
        self.assertEqual(greeting(["Ann", "Bob", "Eve"]), "Hello, Ann, Bob and Eve!")
