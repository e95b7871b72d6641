"""From media files and a manifest to records that training reads."""
