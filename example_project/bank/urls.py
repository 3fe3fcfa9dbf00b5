from django.contrib.auth.views import LoginView, LogoutView
from django.urls import path

from example_project.bank import views

app_name = "bank"
urlpatterns = [
    path("", views.statements, name="statements"),
    path("statements/<uuid:query_id>/", views.statement, name="statement"),
    path("statements/<uuid:query_id>/cancel/", views.cancel, name="cancel"),
    path("statements/<uuid:query_id>/files/<str:name>", views.download, name="download"),
    path("login/", LoginView.as_view(template_name="bank/login.html"), name="login"),
    path("logout/", LogoutView.as_view(next_page="bank:login"), name="logout"),
]
