from django.contrib.auth.models import AbstractUser
from django.db import models


class Person(AbstractUser):
    """A user with a nickname."""

    nickname = models.CharField(max_length=50, blank=True)

    def __str__(self) -> str:
        return self.nickname or self.username
