"""The inside of weight matching: the problem, its compiled and its tensor solution. See README.md here."""
