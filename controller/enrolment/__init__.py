"""A node agent's certificates, signed for its projected token: review, claims, signing, and the door it is asked at."""
