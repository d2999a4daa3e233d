"""The HTTP face. `server.create_app` makes it; each file holds the routes of one noun."""
