"""The step that adds the placeholder to the tokenizer and gives the rows that training starts from."""
