from django.apps import apps
from django.urls import path

urlpatterns = []

if apps.is_installed("django.contrib.admin"):
    from django.contrib import admin

    import alya_django.admin

    own_site = admin.AdminSite(name="own")
    alya_django.admin.register(own_site)
    urlpatterns = [path("admin/", admin.site.urls), path("own/", own_site.urls)]
