// The ceiling: the same framework reads the same body or path and answers, and nothing else.
//   dotnet run -c Release --file tests/load/bare.cs -- http://127.0.0.1:8090
#:sdk Microsoft.NET.Sdk.Web
#:property PublishAot=true
#:property EnforceCodeStyleInBuild=false
#:property RestorePackagesWithLockFile=false
var builder = WebApplication.CreateSlimBuilder();
builder.Logging.ClearProviders();
var app = builder.Build();
app.MapPost("/sns", static async (HttpRequest request) =>
{
    var body = await request.BodyReader.ReadAtLeastAsync((int)(request.ContentLength ?? 1));
    request.BodyReader.AdvanceTo(body.Buffer.End);
    return TypedResults.Text("kept\n");
});
app.MapGet("/suppressed/{address}", static (string address) =>
    TypedResults.Text("{\"address\":\"" + address + "\",\"suppressed\":false}", "application/json"));
app.Run(args[0]);
