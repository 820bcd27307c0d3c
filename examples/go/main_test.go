package main

import "testing"

func TestTheSameQuestionHasTheSameAnswer(t *testing.T) {
	for _, question := range []string{"", "Is it ready?", "Why?"} {
		if answer(question) != answer(question) {
			t.Errorf("%q has two answers", question)
		}
	}
}

func TestAnswersAreThoseOfTheFile(t *testing.T) {
	switch answer("Is it ready?") {
	case "yes", "no", "ask again":
	default:
		t.Error("an answer from elsewhere")
	}
}
