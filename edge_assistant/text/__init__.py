"""Text to token ids and back: tokenizer, streaming decoder, Mistral's instruct formats."""
