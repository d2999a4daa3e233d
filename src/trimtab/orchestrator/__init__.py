"""One turn of a conversation. Above the wings: it is handed a model, a search and tools, and knows no face."""
