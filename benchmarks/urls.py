"""The addresses that the benchmark of the admin asks for."""

from django.contrib import admin
from django.urls import path

urlpatterns = [path("admin/", admin.site.urls)]
